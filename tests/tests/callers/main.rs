//! Programs that call ours, unmodified where they can be run here, and their command lines where
//! not.

mod buildah;
mod command_lines;
mod docker;
mod guix;
mod podman;
mod podman_cni;
mod rootlesskit;
mod scripts;
