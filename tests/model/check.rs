//! The worlds, as the checker wants to see them.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::world::{Choice, Setup, World};

#[derive(Clone)]
pub struct Worlds(pub Setup);

impl Model for Worlds {
    type State = World;
    type Action = Choice;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Choice>) {
        if world.violation.is_none() {
            actions.extend(world.choices(&self.0));
        }
    }

    fn next_state(&self, world: &World, choice: Choice) -> Option<World> {
        let mut next = world.clone();
        next.apply(&self.0, &choice);
        Some(next)
    }

    fn within_boundary(&self, world: &World) -> bool {
        self.0
            .horizon
            .is_none_or(|horizon| world.passed() <= horizon)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is violated", |_, world: &World| {
                world.violation.is_none()
            }),
            Property::sometimes("a worker runs", |_, world: &World| {
                world.hosts.iter().any(|host| host.tree.is_alive())
            }),
        ]
    }
}

pub struct Verdict {
    pub violation: Option<(&'static str, Vec<String>)>,
    pub states: usize,
    pub took: Duration,
}

/// Tries everything.
pub fn check(setup: Setup) -> Verdict {
    let began = Instant::now();
    let checker = Worlds(setup)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discovery("nothing is violated");
    let violation = found.and_then(|path| {
        let last = path.last_state().violation?;
        let steps = path.into_vec();
        let steps = steps
            .iter()
            .map(|(world, choice)| format!("{:>6} {choice:?}", world.passed().as_millis()));
        Some((last, steps.collect()))
    });
    let states = checker.unique_state_count();
    if violation.is_none() {
        assert!(
            checker.discovery("a worker runs").is_some(),
            "nobody ever runs"
        );
    }
    Verdict {
        violation,
        states,
        took: began.elapsed(),
    }
}
