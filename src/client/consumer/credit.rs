//! What a server may still send for one subscription. Pure: numbers in, numbers out.
//!
//! Invariant: what the server may send, what it has sent and nobody has taken yet, and what could be granted add up to the
//! limit. The server may overdraw by one batch, so that the first of them can be below zero.

/// The credit of one partition, in records and in bytes.
#[derive(Debug)]
pub(crate) struct Credit {
    limit: [i64; 2],
    /// What the server may still send.
    outstanding: [i64; 2],
    /// What has come and is not taken.
    held: [i64; 2],
}

impl Credit {
    /// Credit for so much in all; both at least 1.
    pub(crate) fn new(records: u64, bytes: u64) -> Self {
        let limit = [signed(records.max(1)), signed(bytes.max(1))];
        Self { limit, outstanding: [0; 2], held: [0; 2] }
    }

    /// Begins with a new subscription; returns what to grant it.
    pub(crate) fn renew(&mut self) -> (u64, u64) {
        for kind in 0..2 {
            self.outstanding[kind] = (self.limit[kind] - self.held[kind]).max(0);
        }
        (self.outstanding[0].unsigned_abs(), self.outstanding[1].unsigned_abs())
    }

    /// A delivery has come. `false` if the server had no credit left before it.
    pub(crate) fn received(&mut self, records: u64, bytes: u64) -> bool {
        // A delivery without batches only carries news, and needs no credit.
        let allowed = bytes == 0 || (self.outstanding[0] > 0 && self.outstanding[1] > 0);
        for (kind, amount) in [records, bytes].into_iter().enumerate() {
            self.outstanding[kind] = self.outstanding[kind].saturating_sub(signed(amount));
            self.held[kind] = self.held[kind].saturating_add(signed(amount));
        }
        allowed
    }

    /// A delivery has been taken; `true` if it is time to grant more.
    pub(crate) fn taken(&mut self, records: u64, bytes: u64) -> bool {
        for (kind, amount) in [records, bytes].into_iter().enumerate() {
            self.held[kind] = self.held[kind].saturating_sub(signed(amount));
        }
        self.is_due()
    }

    /// Half of the limit at a time, so that a message about credit stands for many records.
    fn is_due(&self) -> bool {
        (0..2).any(|kind| 2 * self.free(kind) >= self.limit[kind])
    }

    /// What to grant now, if it is time.
    pub(crate) fn grant(&mut self) -> Option<(u64, u64)> {
        if !self.is_due() {
            return None;
        }
        let grant = [self.free(0).max(0), self.free(1).max(0)];
        for (outstanding, grant) in self.outstanding.iter_mut().zip(grant) {
            *outstanding += grant;
        }
        Some((grant[0].unsigned_abs(), grant[1].unsigned_abs()))
    }

    fn free(&self, kind: usize) -> i64 {
        self.limit[kind].saturating_sub(self.held[kind]).saturating_sub(self.outstanding[kind])
    }
}

/// Kept far from the ends, so that sums do not overflow.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX).min(i64::MAX / 8)
}
