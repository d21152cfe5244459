//! Coverage-guided driver of [`slirp_fuzz::flow_script`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::flow_script(data));
