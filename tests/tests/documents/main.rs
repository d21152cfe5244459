//! The examples in the documents work as written.

mod cni_readme;
mod manual;
mod readme;
