//! The order of the tasks of a run.
//!
//! A run is a list of kernels, each with many independent blocks: executed kernel by kernel, every limb goes
//! through memory between two of them. The CPU rather finishes what is in its caches. [`Tasks`] finds which tasks
//! wait for which others, from the slots that they read and write, and orders them depth first: a limb is made
//! when the first result that needs it is about to be made. Any order that respects the dependencies gives the
//! same bits.

use std::collections::HashMap;

use cerium_artifact::Operand;
use cerium_ckks::basis::PrimeIndex;

/// The tasks of a run in the order of execution, with what each must wait for.
#[derive(Debug, Default)]
pub(super) struct Tasks<T> {
    tasks: Vec<T>,
    /// Where the predecessors of each task end in `predecessors`.
    ends: Vec<u32>,
    /// Positions in `tasks`, all before that of the waiting task.
    predecessors: Vec<u32>,
    /// Where the successors of each task end in `successors`.
    successor_ends: Vec<u32>,
    /// The same relation the other way round.
    successors: Vec<u32>,
}

/// The pool operands of a task.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) reads: Vec<Operand>,
    pub(super) writes: Vec<Operand>,
    /// Tasks of one kernel and one prime, which share tables: they are better executed one after the other. `None`
    /// for a task that shares none.
    pub(super) group: Option<(u32, PrimeIndex)>,
}

impl<T> Tasks<T> {
    /// Orders tasks that are given in program order.
    pub(super) fn new(tasks: Vec<(T, Access)>) -> Tasks<T> {
        let waits = dependencies(tasks.iter().map(|(_, access)| access));
        let order = depth_first(&waits, &siblings(tasks.iter().map(|(_, access)| access.group)));
        let mut position = vec![0u32; tasks.len()];
        for (at, &task) in order.iter().enumerate() {
            position[task as usize] = at as u32;
        }
        let mut slots: Vec<Option<T>> = tasks.into_iter().map(|(task, _)| Some(task)).collect();
        let mut sorted = Tasks {
            tasks: Vec::with_capacity(order.len()),
            ends: Vec::new(),
            predecessors: Vec::new(),
            successor_ends: Vec::new(),
            successors: Vec::new(),
        };
        let mut followers: Vec<Vec<u32>> = vec![Vec::new(); order.len()];
        for (at, &task) in order.iter().enumerate() {
            for &before in &waits[task as usize] {
                followers[position[before as usize] as usize].push(at as u32);
            }
        }
        for successors in followers {
            sorted.successors.extend(successors);
            sorted.successor_ends.push(sorted.successors.len() as u32);
        }
        for &task in &order {
            sorted.tasks.extend(slots[task as usize].take());
            sorted.predecessors.extend(waits[task as usize].iter().map(|&before| position[before as usize]));
            sorted.ends.push(sorted.predecessors.len() as u32);
        }
        sorted
    }

    /// Number of tasks.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// A task.
    pub(super) fn task(&self, position: usize) -> &T {
        &self.tasks[position]
    }

    /// The tasks that must be finished before the one at `position` begins.
    pub(super) fn predecessors(&self, position: usize) -> &[u32] {
        slice(&self.predecessors, &self.ends, position)
    }

    /// The tasks that wait for the one at `position`.
    pub(super) fn successors(&self, position: usize) -> &[u32] {
        slice(&self.successors, &self.successor_ends, position)
    }
}

fn slice<'a>(all: &'a [u32], ends: &[u32], position: usize) -> &'a [u32] {
    let start = position.checked_sub(1).map_or(0, |before| ends[before] as usize);
    &all[start..ends[position] as usize]
}

/// For each task the earlier ones that it must wait for: the writer of what it reads, and the last users of what it
/// overwrites.
fn dependencies<'a>(accesses: impl Iterator<Item = &'a Access>) -> Vec<Vec<u32>> {
    #[derive(Default)]
    struct Slot {
        writer: Option<u32>,
        readers: Vec<u32>,
    }
    let mut slots: HashMap<Operand, Slot> = HashMap::new();
    let mut waits = Vec::new();
    for (task, access) in accesses.enumerate() {
        let task = task as u32;
        let mut own: Vec<u32> = Vec::new();
        for &operand in access.reads.iter().filter(|operand| in_pool(operand)) {
            let slot = slots.entry(operand).or_default();
            own.extend(slot.writer);
            slot.readers.push(task);
        }
        for &operand in access.writes.iter().filter(|operand| in_pool(operand)) {
            let slot = slots.entry(operand).or_default();
            own.extend(slot.writer);
            own.append(&mut slot.readers);
            slot.writer = Some(task);
        }
        own.sort_unstable();
        own.dedup();
        own.retain(|&before| before != task);
        waits.push(own);
    }
    waits
}

fn in_pool(operand: &Operand) -> bool {
    matches!(operand, Operand::Local(_) | Operand::Arg(_) | Operand::Result(_))
}

/// For each task the next of its group, if there is one.
fn siblings(groups: impl Iterator<Item = Option<(u32, PrimeIndex)>>) -> Vec<Option<u32>> {
    let mut last: HashMap<(u32, PrimeIndex), usize> = HashMap::new();
    let mut next = Vec::new();
    for (task, group) in groups.enumerate() {
        next.push(None);
        if let Some(before) = group.and_then(|group| last.insert(group, task)) {
            next[before] = Some(task as u32);
        }
    }
    next
}

/// Each task preceded by what it waits for and followed by those of its siblings that wait for nothing any more, beginning
/// with the first task that nothing waits for.
fn depth_first(waits: &[Vec<u32>], siblings: &[Option<u32>]) -> Vec<u32> {
    let mut awaited = vec![false; waits.len()];
    waits.iter().flatten().for_each(|&task| awaited[task as usize] = true);
    let mut order = Vec::with_capacity(waits.len());
    let mut visited = vec![false; waits.len()];
    let mut ordered = vec![false; waits.len()];
    // A task on the stack with the number of its predecessors that are already visited.
    let mut stack: Vec<(u32, usize)> = Vec::new();
    for last in (0..waits.len()).filter(|&task| !awaited[task]) {
        if !std::mem::replace(&mut visited[last], true) {
            stack.push((last as u32, 0));
        }
        while let Some((task, next)) = stack.last_mut() {
            match waits[*task as usize].get(*next) {
                Some(&before) => {
                    *next += 1;
                    if !std::mem::replace(&mut visited[before as usize], true) {
                        stack.push((before, 0));
                    }
                }
                None => {
                    let done = *task;
                    order.push(done);
                    ordered[done as usize] = true;
                    stack.pop();
                    if let Some(next) = siblings[done as usize]
                        && !visited[next as usize]
                        && waits[next as usize].iter().all(|&before| ordered[before as usize])
                    {
                        visited[next as usize] = true;
                        stack.push((next, 0));
                    }
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use rand_core::RngCore;

    use super::*;
    use crate::testing::fresh_rng;
    use Operand::Local;

    fn task(reads: &[u32], writes: &[u32]) -> Access {
        let locals = |slots: &[u32]| slots.iter().map(|&slot| Local(slot)).collect();
        Access { reads: locals(reads), writes: locals(writes), group: None }
    }

    fn order(accesses: Vec<Access>) -> (Vec<usize>, Tasks<usize>) {
        let tasks = Tasks::new(accesses.into_iter().enumerate().collect());
        ((0..tasks.len()).map(|position| *tasks.task(position)).collect(), tasks)
    }

    #[test]
    fn a_chain_per_limb_is_finished_before_the_next_begins() {
        // Kernel 1 writes 0, 1; kernel 2 changes 0, 1; kernel 3 reads them into 2, 3.
        let accesses = vec![
            task(&[], &[0]),
            task(&[], &[1]),
            task(&[0], &[0]),
            task(&[1], &[1]),
            task(&[0], &[2]),
            task(&[1], &[3]),
        ];
        assert_eq!(order(accesses).0, [0, 2, 4, 1, 3, 5]);
    }

    #[test]
    fn slots_are_not_reused_too_early() {
        // Task 2 overwrites what task 1 reads; task 3 reads the new value.
        let accesses = vec![task(&[], &[0]), task(&[0], &[1]), task(&[], &[0]), task(&[0], &[2])];
        let (order, tasks) = order(accesses);
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(tasks.predecessors(2), [0, 1]);
        assert_eq!(tasks.predecessors(3), [2]);
    }

    #[test]
    fn tasks_of_a_group_follow_each_other() {
        // Kernel 1, the first and third block by the same prime, reads what kernel 0 writes.
        let in_group = |from: u32, to: u32, prime| Access {
            group: Some((1, PrimeIndex(prime))),
            ..task(&[from], &[to])
        };
        let mut accesses = vec![task(&[], &[8]), task(&[], &[9])];
        accesses.extend([in_group(8, 0, 7), in_group(8, 1, 6), in_group(8, 2, 7), in_group(9, 3, 6)]);
        // The last still waits when the one before it in its group is done.
        assert_eq!(order(accesses).0, [0, 2, 4, 3, 1, 5]);
    }

    #[test]
    fn every_task_stands_once_and_after_its_predecessors() {
        let mut rng = fresh_rng();
        let mut below = |bound: u32| rng.next_u32() % bound;
        // Kernels of eight blocks each, which change slots of their own; some are by the same prime.
        let accesses: Vec<Access> = (0..200)
            .map(|index| {
                let (kernel, slot) = (index / 8, 8 * below(5) + index % 8);
                let reads: Vec<u32> = (0..below(4)).map(|_| 8 * below(5) + index % 8).collect();
                let group = (below(4) > 0).then(|| (kernel, PrimeIndex(below(3) as u8)));
                Access { group, ..task(&reads, &[slot]) }
            })
            .collect();
        let waits = dependencies(accesses.iter());
        let (order, tasks) = order(accesses.clone());
        assert_eq!(order.len(), accesses.len());
        let mut position = vec![usize::MAX; order.len()];
        order.iter().enumerate().for_each(|(at, &task)| position[task] = at);
        for later in 0..accesses.len() {
            assert_eq!(tasks.predecessors(position[later]).len(), waits[later].len());
            let follows =
                |before: &u32| tasks.successors(*before as usize).contains(&(position[later] as u32));
            assert!(tasks.predecessors(position[later]).iter().all(follows));
            for earlier in 0..later {
                let (a, b) = (&accesses[earlier], &accesses[later]);
                let meet = |x: &[Operand], y: &[Operand]| x.iter().any(|operand| y.contains(operand));
                if meet(&a.writes, &b.reads) || meet(&a.writes, &b.writes) || meet(&a.reads, &b.writes) {
                    assert!(position[earlier] < position[later], "task {later} overtook {earlier}");
                }
            }
        }
    }
}
