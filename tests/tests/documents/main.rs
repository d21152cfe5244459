//! What the documents show works as it is written there.

mod cni_readme;
mod manual;
mod readme;
