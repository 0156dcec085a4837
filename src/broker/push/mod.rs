//! Webhooks: what is sent to whom, and how it is signed. The calls themselves are made by the server.

mod secret;
#[cfg(test)]
mod tests;

pub use secret::{SecretError, WebhookSecret};
