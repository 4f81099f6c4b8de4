//! The one integration binary: the product through its front door, with real parts where they can be had.

mod baseline;
mod broker;
mod bus;
mod actions;
mod afterwards;
mod audit;
mod cause;
mod crash;
mod daemon;
mod dead;
mod cli;
mod windows;
mod demo;
mod drift;
mod embedding;
mod fairness;
mod fed;
mod holds;
mod kafka;
mod kill_actions;
mod mail;
mod main_job;
mod notify;
mod oracle;
mod parts;
mod receivers;
mod playbook;
mod pages;
mod reload;
mod same;
mod runbooks;
mod scenario;
mod score;
mod settings;
mod sim;
mod simulate;
mod tidy;
mod told;
mod vendors;
mod weeks;
mod triage;

/// The product's, so that what is measured here is what runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
