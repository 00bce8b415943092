//! The command line.

mod access;
mod audit;
mod demo;
mod events;
mod exit;
mod migrate;
mod parked;
mod projections;
mod rebuild;
mod serve;
mod token;
mod travel;

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use orderlog::{
    config::{Config, ConfigError, Settings},
    telemetry::Traces,
};
use std::{ffi::OsStr, process::ExitCode};

/// An event-sourced order backend.
#[derive(Parser)]
#[command(name = "orderlog", version, args_conflicts_with_subcommands = false)]
#[command(after_help = exit::help())]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service; what happens when no command is given.
    Serve,
    /// Builds a read model anew from the log and switches to it, while queries go on.
    Rebuild(rebuild::Args),
    /// Shows the read models and how far they are.
    Projections,
    /// Shows the streams that read models keep back, or tries one again.
    Parked(parked::Args),
    /// Prints the events of a stream, one JSON object a line.
    Events(events::Args),
    /// Walks the whole log and reports what is wrong with it; exit code 1 if anything is.
    Audit(audit::Args),
    /// Brings the database up to what this program needs.
    Migrate,
    /// Prints a token, signed with the key pair under the data directory, good for 24 hours.
    Token(token::Args),
    /// Prints the OpenAPI document.
    Openapi,
    /// Prints the interface as a Postman collection.
    Postman,
    /// Prints the AsyncAPI document of the topic of events.
    Asyncapi,
    /// Prints what the shop can do, as a table.
    Features,
    /// Fills the running shop with books and a stream of orders.
    Demo(demo::Args),
}

/// Parses the command line and the environment. Otherwise the exit code, after telling why.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A closed pipe is all that can go wrong.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => refuse(&one_line(&error)),
    })
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("orderlog: {reason}");
    ExitCode::from(exit::USAGE)
}

/// What clap says, in one line, with the environment variable beside the flag: it may be where the
/// value came from. A secret is not repeated.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return line };
    let command = Cli::command();
    let Some(arg) = argument(&command, flag) else { return line };
    let Some(variable) = arg.get_env().map(OsStr::to_string_lossy) else { return line };
    if arg.is_hide_env_values_set() {
        let reason = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        return format!("invalid value for {flag} ({variable}): {reason}");
    }
    line.replacen(&format!("'{flag}'"), &format!("{flag} ({variable})"), 1)
}

/// The argument that clap shows as `--listen <ADDR>`.
fn argument<'a>(command: &'a clap::Command, flag: &str) -> Option<&'a clap::Arg> {
    let long = flag.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    command.get_arguments().find(|arg| arg.get_long() == Some(long))
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let allowed = self.settings.auth.auth_builtin;
        let command = self.command.unwrap_or(Command::Serve);
        let usual = if matches!(command, Command::Serve) { "info" } else { "warn" };
        let filter = self.settings.log_filter.clone().unwrap_or_else(|| usual.to_owned());
        let format = self.settings.log_format;
        let collector = self.settings.otel_exporter_otlp_endpoint.clone();
        let checked = Config::try_new(self.settings, std::env::vars()).and_then(|config| {
            if matches!(command, Command::Serve) {
                config.check_exposure(allowed)?;
            }
            Ok::<_, ConfigError>(config)
        });
        let config = match checked {
            Ok(config) => config,
            Err(error) => return refuse(&error.to_string()),
        };
        let traces = match collector.as_deref().map(Traces::to).transpose() {
            Ok(traces) => traces,
            Err(error) => return refuse(&format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}")),
        };
        orderlog::telemetry::log_lines(&filter, format, traces.as_ref());
        match run(command, config.clone()) {
            Ok(code) => code,
            Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("orderlog: {error:#}");
                ExitCode::from(exit::code_of(&error, &config))
            }
        }
    }
}

fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve => return serve::run(config).await,
            Command::Rebuild(args) => rebuild::run(&config, args).await?,
            Command::Projections => projections::run(&config).await?,
            Command::Parked(args) => return parked::run(&config, &args).await,
            Command::Events(args) => events::run(&config, &args).await?,
            Command::Audit(args) => return audit::run(&config, &args).await,
            Command::Migrate => migrate::run(&config).await?,
            Command::Token(args) => token::run(&config, &args)?,
            Command::Openapi => print(&orderlog::openapi::json()?)?,
            Command::Postman => print(&orderlog::postman::json()?)?,
            Command::Asyncapi => print(&orderlog::asyncapi::json()?)?,
            Command::Features => print(orderlog::features::markdown().trim_end())?,
            Command::Demo(args) => demo::run(&config, args).await?,
        }
        Ok(ExitCode::SUCCESS)
    });
    // Threads of a library that still wait for a network must not hold up the end.
    runtime.shutdown_background();
    done
}

/// A line on standard output; an error when nobody reads it any more.
fn print(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{line}")
}

/// `orderlog events ... | head` ends well.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flags: &[&str]) -> String {
        let Err(error) = Cli::try_parse_from([&["orderlog"], flags].concat()) else {
            panic!("{flags:?} was taken")
        };
        one_line(&error)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_flag_and_variable() {
        let line = error(&["--listen", "here"]);
        assert!(
            line.starts_with("invalid value 'here' for --listen <ADDR> (LISTEN_ADDR): "),
            "{line}"
        );
        let line = error(&["serve", "--partitions", "0"]);
        assert!(line.contains("--partitions <N> (LOG_PARTITIONS)"), "{line}");
        let line = error(&["--database-url", "mysql://shop:secret@there"]);
        assert!(line.contains("(DATABASE_URL): a database URL begins with postgres://"), "{line}");
        assert!(!line.contains("secret"), "{line}");
        assert!(error(&["--log-filter", "a=b=c"]).contains("RUST_LOG"));
        assert!(error(&["fly"]).contains("fly"));
    }

    #[test]
    fn settings_stand_before_or_after_the_command() {
        for flags in [["--listen=127.0.0.1:1", "serve"], ["serve", "--listen=127.0.0.1:1"]] {
            let cli = Cli::try_parse_from([&["orderlog"], &flags[..]].concat()).unwrap();
            assert_eq!(cli.settings.listen.port(), 1);
        }
    }
}
