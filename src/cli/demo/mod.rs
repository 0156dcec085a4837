//! x
use clap::Args;
/// x
#[derive(Debug, Args)]
pub struct DemoArgs {}
/// x
pub async fn run(_: DemoArgs) -> Result<(), super::failure::Failure> {
    Ok(())
}
