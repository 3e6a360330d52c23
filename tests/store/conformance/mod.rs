//! What every store must do. Written once against the trait; each test runs
//! against each store.

mod holding;
mod steering;
mod taking;

pub use self::holding::*;
pub use self::steering::*;
pub use self::taking::*;

/// Names every test of the suite, for a macro that makes them tests of a store.
macro_rules! every_test {
    ($each:ident) => {
        $each! {
            a_new_lease_is_granted,
            what_is_written_comes_back,
            an_acquisition_compares_what_was_watched,
            a_renewal_is_one_revision_and_the_same_token,
            what_is_not_ones_own_is_told_and_not_touched,
            a_release_frees_at_once_and_may_come_twice,
            a_late_release_does_not_clear_a_doubt,
            one_of_twenty_gets_it,
            slots_have_tokens_of_their_own,
            slots_above_must_be_as_watched,
            a_token_taken_in_doubt_jumps,
            a_token_is_larger_than_any_that_was_seen,
            an_acquisition_is_settled,
            an_attempt_is_released_whatever_its_token,
            a_pause_keeps_everybody_out,
            a_step_down_is_asked_and_reserves,
            a_closed_token_is_lost,
            hold_at_least_holds_back,
            changes_are_noticed_and_renewals_are_not,
            status_and_history_tell,
            a_missing_schema_is_told_and_made,
        }
    };
}
pub(crate) use every_test;
