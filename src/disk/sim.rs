//! Stub; replaced.
