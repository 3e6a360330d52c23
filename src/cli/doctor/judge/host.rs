//! What this host gives.

use super::{Containment, Point, Verdict};
use crate::sys::namespace::Way;

/// What ends the worker's tree when leasewrap's own processes cannot.
pub(super) fn containment(containment: &Containment) -> Point {
    const ID: &str = "containment";
    const WALK: &str = "the worker's tree is walked and killed (two child subreapers)";
    let way = |way: Way| match way {
        Way::Direct => "",
        Way::UserNamespace => ", in a user namespace",
    };
    match (&containment.possible, containment.wanted) {
        (Ok(possible), true) => Point::new(
            ID,
            Verdict::Holds,
            format!("the kernel ends the worker's PID namespace{}", way(*possible)),
        ),
        (Ok(possible), false) => Point::new(
            ID,
            Verdict::Holds,
            format!("{WALK}; --pid-namespace is possible{}", way(*possible)),
        ),
        (Err(why), true) => Point::new(ID, Verdict::Fails, "no PID namespace can be had here")
            .because("a run with --pid-namespace ends at once, with 125")
            .remedy(why.clone()),
        (Err(why), false) => Point::new(ID, Verdict::Note, format!("{WALK}; --pid-namespace is not possible"))
            .because(
                "if both leasewrap processes are killed at the same instant, the worker dies, but what it has started may live on",
            )
            .remedy(why.clone()),
    }
}
