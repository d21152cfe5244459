//! The target `frame`: raw frames of a hostile guest.
//!
//! Owns the layout of its inputs. Byte 0 chooses the configuration (offload, IPv6, MTU, policy).
//! Then records follow: two bytes, big-endian, of which the low 14 bits are a length and the high
//! two are [`STEP_TIME`] and [`FIX_CHECKSUMS`]; and as many bytes, a frame with its virtio-net
//! header. If the configuration has no such header, the ten bytes are skipped.

use core::time::Duration;

use crate::INPUT_CAP;
use crate::driver::{Driver, World};
use crate::packet::{VNET_LEN, fix_checksums};

/// Time passes before the frame: 700 ms, or 40 s when the length is odd.
pub const STEP_TIME: u16 = 0x8000;
/// The frame's checksums are corrected.
pub const FIX_CHECKSUMS: u16 = 0x4000;

/// Feeds one input to a new stack. Panics when a promise is broken.
pub fn frame(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_CAP)];
    let Some((&choice, mut rest)) = data.split_first() else {
        return;
    };
    let mut driver = Driver::new(choice, World::Echoing);
    while let Some((head, behind)) = rest.split_first_chunk::<2>() {
        let head = u16::from_be_bytes(*head);
        let len = usize::from(head & !(STEP_TIME | FIX_CHECKSUMS)).min(behind.len());
        let (record, behind) = behind.split_at(len);
        rest = behind;
        if head & STEP_TIME != 0 {
            let by = if len % 2 == 0 { 700 } else { 40_000 };
            driver.jump(Duration::from_millis(by));
        }
        let mut record = record.to_vec();
        if head & FIX_CHECKSUMS != 0 && record.len() > VNET_LEN {
            fix_checksums(&mut record[VNET_LEN..]);
        }
        let skipped = if driver.stack.config().offload.vnet_header { 0 } else { VNET_LEN };
        let skipped = skipped.min(record.len());
        driver.handle_frame(&mut record[skipped..], None);
    }
    driver.finish();
}
