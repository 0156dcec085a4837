//! `tidelog serve`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use tidelog::disk::RealDisk;
use tidelog::server::config::{CONFIG_VARIABLE, FIELDS, Field, Inputs, Loaded, ServerConfig};
use tidelog::server::{self, logging};

/// Threads for blocking calls of the runtime itself: name look-ups, opening the data directory, file-system facts.
const BLOCKING_THREADS: usize = 16;
/// Stack of a runtime thread, in bytes.
const STACK_BYTES: usize = 1024 * 1024;

/// What was said on the command line. The flags follow from the table of the configuration.
#[derive(Debug, Default)]
pub struct ServeArgs {
    inputs: Inputs,
    print_config: bool,
}

impl clap::FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in FIELDS {
            if let Some(text) = matches.get_one::<String>(field.name) {
                self.inputs.flags.insert(field.name, text.clone());
            }
        }
        self.inputs.file = matches.get_one::<PathBuf>("config").cloned();
        for text in matches.get_many::<String>("topic-default").unwrap_or_default() {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                let message = format!("--topic-default '{text}' is not NAME=VALUE\n");
                clap::Error::raw(clap::error::ErrorKind::ValueValidation, message)
            })?;
            self.inputs.topic_flags.push((name.to_owned(), value.to_owned()));
        }
        self.print_config = matches.get_flag("print-config");
        Ok(())
    }
}

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let defaults = ServerConfig::default();
        let command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help(format!("configuration in TOML; unknown keys are refused [env: {CONFIG_VARIABLE}]")),
            )
            .arg(
                Arg::new("print-config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("print the configuration in force, as TOML with meanings and origins, and end"),
            )
            .arg(
                Arg::new("topic-default")
                    .long("topic-default")
                    .value_name("NAME=VALUE")
                    .action(ArgAction::Append)
                    .help("a setting of topics that do not set it; may be given several times"),
            );
        FIELDS.iter().fold(command, |command, field| command.arg(flag(field, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(field: &Field, defaults: &ServerConfig) -> Arg {
    let help = format!("{} [default: {}] [env: {}]", field.meaning, field.show(defaults), field.variable());
    let flag = Arg::new(field.name).long(field.flag()).help(help);
    if field.is_switch() {
        flag.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        flag.value_name(field.unit)
    }
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// One line: what is wrong with the configuration, the data directory or an address.
pub fn run(mut args: ServeArgs) -> Result<(), String> {
    args.inputs.environment = environment();
    if args.inputs.file.is_none() {
        args.inputs.file = args.inputs.environment.get(CONFIG_VARIABLE).map(PathBuf::from);
    }
    let loaded = Loaded::from(&args.inputs, &RealDisk).map_err(|error| error.to_string())?;
    loaded.config.check().map_err(|error| error.to_string())?;
    if args.print_config {
        print!("{}", loaded.print());
        return Ok(());
    }
    logging::start(&loaded.config).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidelog-net")
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(server::run(loaded.config)).map_err(|error| error.to_string());
    // Everything has come to rest; who still waits for a disk that hangs is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// The environment, without what is not text.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
