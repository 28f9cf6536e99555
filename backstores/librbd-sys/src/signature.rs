//! The types of the table as C text, so that a C compiler holds them against Ceph's headers.
//!
//! [`check`] is a C file that compiles where, and only where, every function of the table has in the headers the type that
//! it has here. A type that Rust calls from is therefore never only believed.

use std::ffi::{c_char, c_int, c_void};
use std::fmt::Write as _;

use crate::Api;

/// A function and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// As in the header.
    pub name: &'static str,
    /// As a C type name, such as `int (void *, const char *)`.
    pub signature: String,
}

/// A C program that compiles where all functions are declared as the table has them.
pub fn check() -> String {
    let mut text =
        String::from("#include <rados/librados.h>\n#include <rbd/librbd.h>\n#include <sys/uio.h>\n");
    for Declared { name, signature } in Api::declared() {
        let _ = writeln!(
            text,
            "_Static_assert(__builtin_types_compatible_p(__typeof__({name}), {signature}), \"{name}\");"
        );
    }
    text
}

/// A type that has a name in C.
pub trait CType {
    /// The name, such as `const char *`.
    fn name() -> String;
}

/// A function type.
pub trait Function {
    /// As a C type name.
    fn c_type() -> String;
}

macro_rules! names {
    ($($rust:ty => $c:literal),* $(,)?) => {
        $( impl CType for $rust {
            fn name() -> String {
                $c.to_owned()
            }
        } )*
    };
}

names! {
    () => "void",
    c_int => "int",
    u32 => "unsigned int",
    u64 => "uint64_t",
    usize => "size_t",
    isize => "ssize_t",
    *mut c_void => "void *",
    *mut *mut c_void => "void **",
    *mut c_char => "char *",
    *const c_char => "const char *",
    *mut *mut c_char => "char **",
    *mut u32 => "unsigned int *",
    *mut u64 => "uint64_t *",
    *mut usize => "size_t *",
    *mut c_int => "int *",
    *const libc::iovec => "const struct iovec *",
    crate::api::Callback => "void (*)(void *, void *)",
    crate::api::UpdateCallback => "void (*)(void *)",
}

macro_rules! function_types {
    ($($argument:ident)*) => {
        impl<R: CType, $($argument: CType),*> Function for unsafe extern "C" fn($($argument),*) -> R {
            fn c_type() -> String {
                let arguments: Vec<String> = vec![$($argument::name()),*];
                format!("{} ({})", R::name(), arguments.join(", "))
            }
        }
    };
}

function_types!(A);
function_types!(A B);
function_types!(A B C);
function_types!(A B C D);
function_types!(A B C D E);
function_types!(A B C D E F);
function_types!(A B C D E F G);
function_types!(A B C D E F G H);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn types_are_written_as_c_writes_them() {
        let declared = Api::declared();
        let of = |name: &str| {
            declared.iter().find(|declared| declared.name == name).map(|declared| declared.signature.as_str())
        };
        assert_eq!(of("rados_shutdown"), Some("void (void *)"));
        assert_eq!(of("rbd_aio_readv"), Some("int (void *, const struct iovec *, int, uint64_t, void *)"));
    }

    fn compiles(program: &str) -> bool {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("check.c");
        std::fs::write(&file, program).expect("the file is written");
        let mut command = Command::new("cc");
        command.args(["-fsyntax-only", "-Wno-deprecated-declarations", "-D_GNU_SOURCE"]).arg(&file);
        let output = command.output().expect("a C compiler");
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    }

    /// Where Ceph's headers are not installed there is nothing to hold against; `cargo xtask ci` installs them.
    #[test]
    fn the_types_are_those_of_the_installed_headers() {
        if !Path::new("/usr/include/rbd/librbd.h").exists() {
            assert!(std::env::var_os("CI").is_none(), "the package librbd-dev is not installed");
            eprintln!("skipped: librbd-dev is not installed");
            return;
        }
        assert!(compiles(&check()));
        let wrong = check()
            .replace("int (void *, const struct iovec *, int,", "int (void *, const struct iovec *, long,");
        assert!(!compiles(&wrong), "a wrong type is found");
    }
}
