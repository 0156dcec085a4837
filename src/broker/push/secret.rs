//! Signatures of webhooks, by the Standard Webhooks specification (symmetric, `v1`): what a receiver needs to know that a
//! message is the server's, whole, and not an old one sent again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret begins with when it is written down.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, as the specification has them.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret shared with a receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// Why a text is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not in the form.
    #[error("a webhook secret is written 'whsec_' and base64")]
    Form,
    /// Too short to be one, or too long.
    #[error("a webhook secret of {bytes} bytes; allowed are 24 to 64")]
    Length {
        /// What it has.
        bytes: usize,
    },
    /// More than two in a file, or none.
    #[error(
        "{found} webhook secrets; allowed are one, or two on lines of their own while the first takes over from the second"
    )]
    Number {
        /// So many.
        found: usize,
    },
}

/// What messages are signed with, the newest secret first; nothing, if there is none. Whoever knows one of them finds a signature
/// that is good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookSecrets(Vec<WebhookSecret>);

impl WebhookSecrets {
    /// Reads one secret, or two: the new one, and the one before it, which is still valid.
    ///
    /// # Errors
    /// [`SecretError`]; it does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if !(1..=2).contains(&words.len()) {
            return Err(SecretError::Number { found: words.len() });
        }
        let secrets: Result<Vec<_>, _> = words.into_iter().map(WebhookSecret::parse).collect();
        Ok(Self::default().and(Self(secrets?)))
    }

    /// These, and then those that are not among them.
    pub fn and(mut self, others: Self) -> Self {
        for other in others.0 {
            if !self.0.contains(&other) {
                self.0.push(other);
            }
        }
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The header `webhook-signature` of a message: a signature of each; `None` if there is none.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> Option<String> {
        let words: Vec<String> = self.0.iter().map(|secret| secret.sign(id, timestamp_s, body)).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

impl From<WebhookSecret> for WebhookSecrets {
    fn from(secret: WebhookSecret) -> Self {
        Self(vec![secret])
    }
}

impl WebhookSecret {
    /// A new one of 32 bytes, 244 bits of which are random.
    pub fn random() -> Self {
        let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        Self(halves.iter().flat_map(|half| *half.as_bytes()).collect())
    }

    /// Reads `whsec_` and base64.
    ///
    /// # Errors
    /// [`SecretError`]; it does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Form)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SecretError::Form)?;
        if !BYTES.contains(&bytes.len()) {
            return Err(SecretError::Length { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// As [`WebhookSecret::parse`] reads it.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The signature of a message: one word of the header `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp_s, body).finalize().into_bytes()))
    }

    /// Whether one of the words of a `webhook-signature` header is of this secret. Takes as long whatever is wrong.
    pub fn verifies(&self, id: &str, timestamp_s: i64, body: &[u8], signatures: &str) -> bool {
        let good = |word: &str| {
            let found = word.strip_prefix("v1,").and_then(|encoded| STANDARD.decode(encoded).ok());
            found.is_some_and(|found| self.mac(id, timestamp_s, body).verify_slice(&found).is_ok())
        };
        signatures.split(' ').any(good)
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn mac(&self, id: &str, timestamp_s: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp_s.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}
