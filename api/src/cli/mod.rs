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

/// An event-sourced order backend for online shops.
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
    /// Run the service. This is the default command.
    Serve,
    /// Rebuild read models from the log while they serve queries, then switch to the new versions.
    Rebuild(rebuild::Args),
    /// List the read models, their versions and how far each is behind the log.
    Projections,
    /// List the streams that read models cannot apply, or retry one of them.
    Parked(parked::Args),
    /// Print the events of a stream, one JSON object per line.
    Events(events::Args),
    /// Check the whole log and report every fault. The exit code is 1 if there is one.
    Audit(audit::Args),
    /// Update the database schema for this version of the program.
    Migrate,
    /// Print a token that is valid for 24 hours, signed with the key pair in the data directory.
    Token(token::Args),
    /// Print the OpenAPI document of the HTTP interface.
    Openapi,
    /// Print the HTTP interface as a Postman collection.
    Postman,
    /// Print the AsyncAPI document of the events.
    Asyncapi,
    /// Print the table of features, as Markdown.
    Features,
    /// Print the table of settings, as Markdown.
    Settings,
    /// Fill a running shop with books, customers and orders.
    Demo(demo::Args),
}

/// Parses the command line and the environment. On failure, prints the reason and returns the exit
/// code.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Only a closed pipe can make this fail.
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

/// The error of clap on one line, with the environment variable beside the flag, as the value may
/// come from either. A secret value is not repeated.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    if matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument) {
        return format!("{line}; run `orderlog --help` for the commands and flags");
    }
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

/// Finds the argument that clap calls `--listen <ADDR>`.
fn argument<'a>(command: &'a clap::Command, flag: &str) -> Option<&'a clap::Arg> {
    let long = flag.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    command.get_arguments().find(|arg| arg.get_long() == Some(long))
}

impl Cli {
    /// Runs the command.
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
            Command::Settings => print(orderlog::config::table().trim_end())?,
            Command::Demo(args) => demo::run(&config, args).await?,
        }
        Ok(ExitCode::SUCCESS)
    });
    // Library threads that still wait for the network must not delay the exit.
    runtime.shutdown_background();
    done
}

/// Prints a line on standard output. Fails when the reader has closed the pipe.
fn print(line: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Whether a reader such as `head` closed the pipe, which is a normal end.
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
            panic!("{flags:?} was accepted")
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
        assert!(
            line.contains("(DATABASE_URL): a database URL must begin with postgres://"),
            "{line}"
        );
        assert!(!line.contains("secret"), "{line}");
        assert!(error(&["--log-filter", "a=b=c"]).contains("RUST_LOG"));
        for unknown in ["fly", "--fly"] {
            let line = error(&[unknown]);
            assert!(line.contains(&format!("'{unknown}'")) && line.contains("--help"), "{line}");
        }
    }

    #[test]
    fn settings_stand_before_or_after_the_command() {
        for flags in [["--listen=127.0.0.1:1", "serve"], ["serve", "--listen=127.0.0.1:1"]] {
            let cli = Cli::try_parse_from([&["orderlog"], &flags[..]].concat()).unwrap();
            assert_eq!(cli.settings.listen.port(), 1);
        }
    }
}
