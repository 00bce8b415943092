//! `orderlog token`.

use anyhow::{Context, ensure};
use orderlog::{
    auth::{AuthKeys, Role},
    config::{AuthChoice, Config},
    startup,
};

#[derive(clap::Args)]
pub struct Args {
    /// Role of the caller: customer, staff or admin
    #[arg(long)]
    role: Role,
    /// Subject of the token; for a customer the customer's id [default: the role's name].
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
}

pub fn run(config: &Config, args: &Args) -> anyhow::Result<()> {
    let own = config.auth == AuthChoice::BuiltIn;
    ensure!(own, "the settings name another issuer of tokens, so this program cannot sign them");
    std::fs::create_dir_all(&config.data_dir).context("the data directory cannot be created")?;
    let keys = AuthKeys::load_or_create(&startup::auth_key_path(&config.data_dir))?;
    super::print(&startup::sign(&keys, args.role, args.sub.as_deref())?)?;
    Ok(())
}
