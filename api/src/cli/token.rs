//! `orderlog token`.

use anyhow::{Context, ensure};
use orderlog::{
    auth::{AuthKeys, Role, TOKEN_LIFETIME},
    config::{AuthChoice, Config},
    startup,
};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Args {
    /// Role of the caller: customer, staff or admin
    #[arg(long)]
    role: Role,
    /// Subject of the token; for a customer the customer's id [default: the role's name].
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
    /// How long the token is valid, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = TOKEN_LIFETIME.as_secs())]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    expires: u64,
}

pub fn run(config: &Config, args: &Args) -> anyhow::Result<()> {
    let own = config.auth == AuthChoice::BuiltIn;
    ensure!(own, "the settings name another issuer of tokens, so this program cannot sign them");
    std::fs::create_dir_all(&config.data_dir).context("the data directory cannot be created")?;
    let keys = AuthKeys::load_or_create(&startup::auth_key_path(&config.data_dir))?;
    let lifetime = Duration::from_secs(args.expires);
    super::print(&startup::sign_for(&keys, args.role, args.sub.as_deref(), lifetime)?)?;
    Ok(())
}
