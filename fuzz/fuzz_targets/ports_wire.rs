//! Coverage-guided driver of [`slirp_fuzz::ports_wire`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::ports_wire(data));
