//! JSON without a tree: byte ranges of the few fields that the gateway reads.
