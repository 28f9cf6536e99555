//! What the system lets this process have: descriptors, one for each connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to what it may be raised to without privileges; `portico_ring::probe` tells where that is too
/// low.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays at {current:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_may_be_had_is_taken() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let lowered = maximum.map(|maximum| maximum / 2);
        setrlimit(Resource::Nofile, Rlimit { current: lowered, maximum }).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
