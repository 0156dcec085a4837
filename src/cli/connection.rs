//! Options that every command with a server has.

use std::time::Duration;

use clap::Args;
use tidelog::client::{Client, ClientError};

/// The port of the native listener unless it was moved.
const PORT: u16 = 7171;

/// Which server.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Server to talk to: HOST:PORT, or HOST for port 7171
    #[arg(long, value_name = "ADDR", env = "TIDELOG_SERVER", default_value = "127.0.0.1:7171", global = true, value_parser = with_port)]
    pub server: String,
    /// Who this client says it is, in 'connections list' and in the server's log
    #[arg(long, value_name = "NAME", env = "TIDELOG_CLIENT_NAME", default_value = "tidelog-cli", global = true)]
    pub client_name: String,
}

/// An address with its port.
fn with_port(text: &str) -> Result<String, std::convert::Infallible> {
    let is_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    Ok(match text.rsplit_once(':') {
        _ if is_v6 => format!("[{text}]:{PORT}"),
        Some((_, port)) if !port.ends_with(']') => text.to_owned(),
        _ => format!("{text}:{PORT}"),
    })
}

impl ServerArgs {
    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        Client::builder()
            .server(self.server.as_str())
            .name(self.client_name.as_str())
            .connect_timeout(Duration::from_secs(5))
            .build()
            .await
    }
}
