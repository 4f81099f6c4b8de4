//! Closed panes become alarms, or the reason why not.
