//! The one integration binary: the product through its front door, with real parts where they can be had.

mod broker;
mod cause;
mod crash;
mod daemon;
mod dead;
mod cli;
mod demo;
mod drift;
mod fairness;
mod kafka;
mod main_job;
mod notify;
mod oracle;
mod parts;
mod pages;
mod reload;
mod same;
mod scenario;
mod score;
mod settings;
mod sim;
mod simulate;
mod tidy;
mod triage;
