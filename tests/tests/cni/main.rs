//! The CNI plugin, called as a container runtime calls it: one network for each container, and
//! shared ones.

mod attach;
mod demo;
mod lifetime;
mod nested;
mod operator;
mod policy;
mod runtime;
mod shared;
mod shared_hostile;
mod shared_lifetime;
