//! `bellwether simulate`: a fleet of your size without a broker. What would the budget give me?

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::Global;
use super::failure::Failure;
use super::output::{Output, table};
use crate::simulate::{self, FAULT_SIGMA, FAULT_TIMES, Found, Kind, Outcome, Plan};

const EXAMPLES: &str = "\
Examples:
  bellwether simulate                                        300 series, the budget of the configuration or 2
  bellwether simulate --series 10000 --events 500000 --faults 100
  bellwether simulate --fleet churn --repeats 30 -o json

Series are a mix of rates, values, classes and counts, and live for a month in the lines that the daemon would open for them,
under the budget divided as the daemon divides it. A fault doubles a rate, a count or a class, or shifts values by a quarter of
their standard deviation, which is little more than what is forgiven. Prints the false pages that were promised and those that
were measured, the faults that were found and how late. Ends with 0 whatever was measured.";

/// Test the promise on a made-up fleet before anyone is paged
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Simulate {
    /// Series watched
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    series: u64,
    /// Events of each series in the month
    #[arg(long, value_name = "M", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000))]
    events: u64,
    /// Series with a hidden fault
    #[arg(long, value_name = "K", default_value_t = 30)]
    faults: u64,
    /// Another seed is another fleet; the same one is the same
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Events learned before [default: from 2,000 to 200,000, mixed]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    baseline: Option<u64>,
    /// False pages in 30 days [default: budget.false_pages of the configuration, else 2]
    #[arg(long, value_name = "PAGES", value_parser = above_zero)]
    false_pages: Option<f64>,
    /// Events of one pane
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pane_events: u32,
    /// Months to simulate
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeats: u32,
    /// What the fleet does beside being quiet
    #[arg(long, value_enum, default_value_t)]
    fleet: Fleet,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Fleet {
    /// Independent series that live the whole month
    #[default]
    Steady,
    /// Half of the series are born during the month, and half of all die in it
    Churn,
    /// Groups of thirty series that see the same events
    Twins,
    /// Every series is changed by exactly what is forgiven
    Edge,
    /// Every series is saved, killed and replayed once; a difference is counted
    Killed,
}

impl Simulate {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let false_pages = match self.false_pages {
            Some(pages) => pages,
            None => global.load_if_any()?.map_or(2.0, |loaded| loaded.settings.budget_false_pages),
        };
        if self.faults > self.series {
            return Err(Failure::usage(format!("--faults {} is more than --series {}", self.faults, self.series)));
        }
        if self.events < u64::from(self.pane_events) {
            return Err(Failure::usage(format!("--events {} do not fill one pane of {} (--pane-events)", self.events, self.pane_events)));
        }
        let plan = Plan {
            kind: match self.fleet {
                Fleet::Steady => Kind::Steady,
                Fleet::Churn => Kind::Churn,
                Fleet::Twins => Kind::Twins,
                Fleet::Edge => Kind::Edge,
                Fleet::Killed => Kind::Killed,
            },
            series: self.series as usize,
            events: self.events,
            pane_events: self.pane_events,
            faults: self.faults as usize,
            baseline: self.baseline,
            false_pages,
            seed: self.seed,
            repeats: self.repeats as usize,
        };
        let bar = ProgressBar::new(self.series * u64::from(self.repeats));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} series, {eta} left") {
            bar.set_style(style);
        }
        let outcome = simulate::run(&plan, |done, _| bar.set_position(done as u64));
        bar.finish_and_clear();
        self.output.one(&outcome, || told(&outcome))
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|n| *n > 0.0 && n.is_finite()).ok_or_else(|| "a number above 0 is expected, such as 2".to_owned())
}

fn told(out: &Outcome) -> String {
    let plan = &out.plan;
    let (least, most) = (out.false_pages_each.iter().min().unwrap_or(&0), out.false_pages_each.iter().max().unwrap_or(&0));
    let months = if plan.repeats == 1 { "a month".to_owned() } else { format!("{} months", plan.repeats) };
    let mut text = format!(
        "{} series, {} events each in panes of {}, {months}\n\n\
         false pages in 30 days   at most {} promised ({:.2} given out), {:.2} measured on the mean ({least} to {most}; {} of {} months over)\n",
        plan.series, plan.events, plan.pane_events, plan.false_pages, out.promised, out.false_pages_mean, out.repeats_over, plan.repeats
    );
    if plan.kind == Kind::Killed {
        text.push_str(&format!("after a kill and a replay {} series came out differently\n", out.differing));
    }
    if out.faults.hidden > 0 {
        text.push_str(&format!("\nHidden faults (x{FAULT_TIMES}, or {FAULT_SIGMA} sigma):\n\n"));
        let events = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.0}"));
        let row = |name: &str, f: &Found| {
            vec![
                name.to_owned(),
                f.hidden.to_string(),
                f.found.to_string(),
                events(f.delay_events_median),
                events(f.single_events_median),
                f.times_single.map_or("-".to_owned(), |t| format!("{t:.2}")),
                f.within_3x.to_string(),
            ]
        };
        let mut rows: Vec<Vec<String>> = out.by_kind.iter().map(|(name, f)| row(name, f)).collect();
        rows.push(row("all", &out.faults));
        text.push_str(&table(&["series", "hidden", "found", "median events to the page", "of a single bank", "times", "within 3x"], &rows));
    }
    text
}
