//! `orderlog token`.

use anyhow::{Context, ensure};
use orderlog::{
    auth::{AuthKeys, Role},
    config::{AuthChoice, Config},
    startup,
};

#[derive(clap::Args)]
pub struct Args {
    /// customer, staff or admin
    #[arg(long)]
    role: Role,
    /// Whose token; for a customer the customer's id [default: the role's name].
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
}

pub fn run(config: &Config, args: &Args) -> anyhow::Result<()> {
    let own = config.auth == AuthChoice::BuiltIn;
    ensure!(own, "tokens are checked with keys of somebody else, who signs them");
    std::fs::create_dir_all(&config.data_dir).context("the data directory cannot be made")?;
    let keys = AuthKeys::load_or_create(&startup::auth_key_path(&config.data_dir))?;
    super::print(&startup::sign(&keys, args.role, args.sub.as_deref())?)?;
    Ok(())
}
