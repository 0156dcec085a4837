//! Options that every command with a server has.

use std::time::Duration;

use clap::Args;
use tidelog::client::{Client, ClientError};

/// Which server.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Server to talk to
    #[arg(long, value_name = "ADDR", env = "TIDELOG_SERVER", default_value = "127.0.0.1:7171", global = true)]
    pub server: String,
}

impl ServerArgs {
    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        Client::builder()
            .server(self.server.as_str())
            .name("tidelog-cli")
            .connect_timeout(Duration::from_secs(5))
            .build()
            .await
    }
}
