//! Routes whose records would come back to them.

use std::fmt;

use crate::base::TopicName;

use super::spec::RouteSpec;

/// A way from a route back to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// The route.
    pub route: TopicName,
    /// The topics and routes on the way, from the route's first topic on: topic, route, topic, ...
    pub way: Vec<(TopicName, TopicName)>,
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route '{}' would route its own records again: ", self.route)?;
        for (at, (topic, route)) in self.way.iter().enumerate() {
            let join = if at == 0 { "" } else { ", " };
            write!(f, "{join}topic '{topic}' is read by route '{route}'")?;
        }
        Ok(())
    }
}

/// The first loop among routes, by their order. Destinations that are computed are not known before a record comes; they are
/// stopped by a limit of hops.
pub fn find(routes: &[RouteSpec]) -> Option<Loop> {
    let writes: Vec<Vec<TopicName>> = routes.iter().map(RouteSpec::writes).collect();
    let next: Vec<Vec<(usize, &TopicName)>> = writes
        .iter()
        .map(|topics| {
            let readers =
                |topic| (0..routes.len()).filter(move |at| routes[*at].reads(topic)).map(move |at| (at, topic));
            topics.iter().flat_map(readers).collect()
        })
        .collect();
    // Depth first without recursion; `done` routes are on no loop.
    let mut done = vec![false; routes.len()];
    for start in 0..routes.len() {
        if done[start] {
            continue;
        }
        let mut way: Vec<(usize, Option<&TopicName>, usize)> = vec![(start, None, 0)];
        while let Some((route, _, turn)) = way.last_mut() {
            let Some(&(to, topic)) = next[*route].get(*turn) else {
                done[*route] = true;
                way.pop();
                continue;
            };
            *turn += 1;
            if let Some(from) = way.iter().position(|(route, ..)| *route == to) {
                let inside = way[from + 1..].iter().filter_map(|(route, topic, _)| Some(((*topic)?, *route)));
                let steps = inside.chain([(topic, to)]);
                let named = steps.map(|(topic, route)| (topic.clone(), routes[route].name.clone()));
                return Some(Loop { route: routes[to].name.clone(), way: named.collect() });
            }
            if !done[to] {
                way.push((to, Some(topic), 0));
            }
        }
    }
    None
}
