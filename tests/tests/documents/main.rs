//! The examples in the documents work as written.

mod bare;
mod cni_readme;
mod egress_manual;
mod manual;
mod package;
mod readme;
