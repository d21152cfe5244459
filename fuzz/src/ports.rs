//! The targets `ports` and `ports_wire`: ports as the options of pasta(1) and pesto(1) have them,
//! and as they cross pasta's control socket.
//!
//! Owns the layout of their inputs. Byte 0 of `ports` chooses the option, the rest is its value;
//! what is not UTF-8 is replaced, and a NUL ends it, as it ends a word of a command line. Byte 0 of
//! `ports_wire` chooses who speaks ([`GREETING`], …), the rest is what it says.

use slirp_cli::internals::ports::{Value, read_value};
use slirp_cli::internals::wire::{Heard, read_change, read_greeting, read_status};

use crate::INPUT_CAP;

/// The network speaks first; so it does for all other values.
pub const GREETING: u8 = 0;
/// The client wants other rules.
pub const CHANGE: u8 = 1;
/// The network says what has come of it.
pub const STATUS: u8 = 2;

/// Most rules of the two tables together.
const RULES_CAP: usize = 2 * 255;

/// Reads one value. Panics when a promise is broken.
pub fn ports(data: &[u8]) {
    let Some((&at, text)) = data[..data.len().min(INPUT_CAP)].split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let text = text.split('\0').next().unwrap_or_default();
    let Some(value) = read_value(at, text) else { return };
    let again = read_value(at, &value.printed).expect("a printed value can be read");
    let Value { printed, change } = &again;
    assert_eq!(printed, &value.printed, "of {text:?}");
    match (&value.change, change) {
        (Ok(sent), Ok(again)) => {
            assert_eq!(sent, again, "rules of {text:?}");
            let heard = read_change(sent).expect("what we send can be read").expect("tables");
            assert_eq!(heard.bytes, *sent, "rules of {text:?} on the wire");
        }
        (Err(why), Err(_)) => assert!(!why.is_empty()),
        (Ok(_), Err(why)) | (Err(why), Ok(_)) => panic!("{text:?} and {printed:?}: {why}"),
    }
}

/// Reads what one end says. Panics when a promise is broken.
pub fn ports_wire(data: &[u8]) {
    let Some((&speaker, bytes)) = data[..data.len().min(INPUT_CAP)].split_first() else {
        return;
    };
    match speaker % 3 {
        CHANGE => {
            let Ok(Some(heard)) = read_change(bytes) else { return };
            check(&heard);
            let again = read_change(&heard.bytes).expect("what we send can be read");
            assert_eq!(again, Some(heard));
        }
        STATUS => {
            let Ok(Some(written)) = read_status(bytes) else { return };
            let again = read_status(&written).expect("a status of ours");
            assert!(again.as_ref() == Some(&written), "a status of {} bytes", written.len());
        }
        GREETING.. => {
            let Ok(heard) = read_greeting(bytes) else { return };
            check(&heard);
            assert_eq!(read_greeting(&heard.bytes).expect("a greeting of ours"), heard);
        }
    }
}

fn check(heard: &Heard) {
    assert!(heard.rules.len() <= RULES_CAP, "{} rules", heard.rules.len());
}
