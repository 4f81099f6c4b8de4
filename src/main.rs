//! The command line.

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads for the shell");
    let args: Vec<String> = std::env::args().collect();
    let _ = bellwether::telemetry::log::start("info", bellwether::telemetry::log::Format::Text);
    let cues = args.iter().filter_map(|a| a.strip_prefix("--fault=")).map(|f| f.parse().expect("cue")).collect();
    let seconds = args.iter().find_map(|a| a.strip_prefix("--for=")).map(|s| s.parse().expect("seconds"));
    let options = bellwether::demo::Options {
        json: args.iter().any(|a| a == "--json"),
        script: bellwether::demo::script::Script::new(cues),
        duration: seconds.map(std::time::Duration::from_secs),
        seed: 7,
        listen: ([127, 0, 0, 1], 9710).into(),
    };
    if let Err(e) = runtime.block_on(bellwether::demo::run(options)) {
        eprintln!("error: {e} {e:?}");
    }
}
