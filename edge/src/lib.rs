//! A stateless cache tier: verifies every byte before it stores or forwards it; holds no signing key and no truth.
