//! The dialect of pasta(1): its options, texts and exit statuses.
//!
//! Owns the way from `argv` to [`PastaOptions`](options::PastaOptions). Callers read what is
//! printed here, and so do people who search for a text, so texts of pasta(1) are kept where the
//! situation is the same. No program calls this dialect yet.
//!
//! ```text
//!  args      the command line: options, values, refusals
//!  ports     the grammar of -t, -u, -T and -U, and the rules that it makes
//!  options   values: what is to be done
//!  version   the text of --version
//! ```

mod args;
mod options;
mod ports;
mod version;
