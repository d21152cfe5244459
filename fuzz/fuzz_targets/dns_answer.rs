//! Coverage-guided driver of [`slirp_fuzz::dns_answer`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::dns_answer(data));
