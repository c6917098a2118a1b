//! Product releases and package sets (RFC-0212), rollout policy, Omaha and CUP messages; pure.
