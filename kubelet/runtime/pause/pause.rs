//! The pause program: holds a pod's namespaces, reaps what dies in them, and ends at once when asked.
//!
//! It is the first process of every sandbox. With a shared PID namespace it is process 1 of the whole pod, so
//! orphans come to it and must be waited for. It uses neither `std` nor a C library: the image is this one
//! file, a few kilobytes that the kernel maps once for all pods of the node.
//!
//! Signals are blocked and fetched with `rt_sigtimedwait` instead of handled: a blocked signal reaches even
//! process 1, whose unhandled ones the kernel throws away (`man 7 pid_namespaces`), and needs no trampoline.
//!
//! This file is no part of the crate: `build.rs` compiles it alone, so it states its own lints. It may be
//! `unsafe`, for it speaks to the kernel directly.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: u64 = 17;
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const EINTR: isize = -4;
/// Size of the kernel's signal set in bytes.
const SIGSET_SIZE: usize = 8;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
    pub(crate) const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const WAIT4: usize = 260;
}

// The kernel enters here with no return address on the stack; the ABI wants it aligned to 16 at a call.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "and $-16, %rsp", "call {main}", main = sym main, options(att_syntax));
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "bl {main}", main = sym main);

#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the caller passes arguments that are valid for the call; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn system_call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the caller passes arguments that are valid for the call; the kernel keeps all other registers.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
             options(nostack));
    }
    result
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: exit_group takes a number and does not return.
        unsafe { system_call(number::EXIT_GROUP, code, 0, 0, 0) };
    }
}

/// Waits for every child that has ended.
fn reap() {
    // SAFETY: no pointer is passed: the kernel is asked to write nothing.
    while unsafe { system_call(number::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {}
}

extern "C" fn main() -> ! {
    let awaited: u64 = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1)) | (1 << (SIGCHLD - 1));
    let set = &raw const awaited as usize;
    // SAFETY: `set` points to a signal set of SIGSET_SIZE bytes that lives as long as the process.
    unsafe { system_call(number::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SIGSET_SIZE) };
    loop {
        reap();
        // SAFETY: as above; neither information nor a timeout is asked for.
        match unsafe { system_call(number::RT_SIGTIMEDWAIT, set, 0, 0, SIGSET_SIZE) } {
            signal if signal == SIGINT as isize || signal == SIGTERM as isize => exit(0),
            signal if signal == SIGCHLD as isize || signal == EINTR => {}
            // Cannot happen with these arguments; ending beats spinning.
            _ => exit(2),
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(3)
}
