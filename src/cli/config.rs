//! `bellwether config`: the file itself, its schema, a sample, and what is in force.

use clap::Subcommand;

use super::Global;
use super::failure::Failure;
use super::output::{Output, print};
use crate::{notify, settings};

const EXAMPLES: &str = "\
Examples:
  bellwether config sample > bellwether.yaml
  bellwether config runbooks > runbooks.yaml           what is done where you say nothing
  bellwether config token > ana.token                  its digest is shown beside it
  bellwether config schema > bellwether.schema.json    and in the file: # yaml-language-server: $schema=bellwether.schema.json
  BELLWETHER__KAFKA__GROUP=canary bellwether config show

show ends with 78 if the file is not in order.";

/// The configuration: schema, sample, what is in force
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Config {
    /// JSON Schema of the file, for editors
    #[command(after_help = EXAMPLES)]
    Schema {
        /// That of files of runbooks
        #[arg(long)]
        runbooks: bool,
    },
    /// The built-in runbooks, to begin one's own from
    #[command(after_help = EXAMPLES)]
    Runbooks,
    /// A new token, and the digest that the configuration holds of it
    #[command(after_help = EXAMPLES)]
    Token,
    /// A file that shows every key with its default
    #[command(after_help = EXAMPLES)]
    Sample,
    /// What file, environment and defaults say together; secrets as <secret>
    #[command(after_help = EXAMPLES)]
    Show,
}

impl Config {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Config::Schema { runbooks: true } => Output::Json.one(&settings::runbook_schema(), String::new),
            Config::Runbooks => {
                let all: Vec<&str> = settings::BUILT_IN.iter().map(|(_, text)| *text).collect();
                // One list: the later heads are comments.
                print(
                    &all.iter().enumerate().map(|(i, t)| if i == 0 { (*t).to_owned() } else { t.replacen("runbooks:\n", "", 1) }).collect::<String>(),
                )
            }
            Config::Token => {
                let (token, digest) = new_token().map_err(|e| Failure::new(format!("no random bytes: {e}")))?;
                eprintln!("Give the token to whoever it is for; it is kept nowhere. The digest goes into the configuration:");
                eprintln!("tokens:\n  - {{name: NAME, role: approver, sha256: \"{digest}\"}}");
                print(&format!("{token}\n"))
            }
            Config::Schema { runbooks: false } => {
                let kinds: Vec<&notify::Kind> = notify::KINDS.iter().collect();
                Output::Json.one(&settings::schema_for(&kinds), String::new)
            }
            Config::Sample => print(&settings::sample()),
            Config::Show => print(&settings::redacted(&global.load()?.settings)),
        }
    }
}

/// 256 random bits, and their digest.
fn new_token() -> std::io::Result<(String, String)> {
    use base64::Engine as _;
    use sha2::Digest as _;
    let mut bytes = [0u8; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let token = format!("bwt_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes));
    let digest = sha2::Sha256::digest(token.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    Ok((token, digest))
}
