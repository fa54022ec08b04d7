//! Functions, modules, and the builder that types every operation as it is added.

use std::fmt;
use std::ops::Range;

use cerium_artifact::StageId;

use super::{Dialect, Operation, Symbol};

/// A value of a function: a parameter or the result of an operation. Prints as `%3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// The index as a `usize`, for tables by value.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// An operation in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<O> {
    /// What it computes.
    pub op: O,
    /// The values it defines, consecutive.
    pub results: Range<u32>,
    /// The stage (layer) it belongs to.
    pub stage: StageId,
}

impl<O> Node<O> {
    /// Its result, of an operation that has just one.
    pub fn result(&self) -> ValueId {
        debug_assert_eq!(self.results.len(), 1, "an operation with one result");
        ValueId(self.results.start)
    }
}

/// A function: parameters, operations in an order of execution, results.
#[derive(Clone, Debug, PartialEq)]
pub struct Function<D: Dialect> {
    /// Name, unique in the module.
    pub name: Symbol,
    /// Number of parameters; they are the values `%0..%n`.
    pub params: u32,
    /// The body.
    pub nodes: Vec<Node<D::Op>>,
    /// What it returns.
    pub results: Vec<ValueId>,
    /// Type of every value.
    pub types: Vec<D::Type>,
}

impl<D: Dialect> Function<D> {
    /// The parameters in order.
    pub fn params(&self) -> impl Iterator<Item = ValueId> + use<D> {
        (0..self.params).map(ValueId)
    }

    /// Type of a value of this function.
    pub fn type_of(&self, value: ValueId) -> &D::Type {
        &self.types[value.index()]
    }

    /// Types of the parameters.
    pub fn param_types(&self) -> &[D::Type] {
        &self.types[..self.params as usize]
    }

    /// Types of the results.
    pub fn result_types(&self) -> Vec<D::Type> {
        self.results.iter().map(|&v| self.type_of(v).clone()).collect()
    }

    /// Whether both compute the same: they are equal but for their names and stages.
    pub fn same_body(&self, other: &Self) -> bool {
        self.params == other.params
            && self.results == other.results
            && self.types == other.types
            && self.nodes.iter().map(|node| &node.op).eq(other.nodes.iter().map(|node| &node.op))
    }

    /// How many times each value is used, by operations and as a result.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.types.len()];
        let operands = self.nodes.iter().flat_map(|node| node.op.operands());
        for value in operands.chain(self.results.iter().copied()) {
            counts[value.index()] += 1;
        }
        counts
    }
}

/// A program on one level: callees stand before callers, the last function is the entry.
#[derive(Clone, Debug)]
pub struct Module<D: Dialect> {
    /// Parameters and declarations that typing needs.
    pub context: D::Context,
    /// Names of the stages.
    pub stages: Vec<String>,
    /// The functions.
    pub functions: Vec<Function<D>>,
}

impl<D: Dialect> Module<D> {
    /// A module without functions.
    pub fn new(context: D::Context, stages: Vec<String>) -> Self {
        Module { context, stages, functions: Vec::new() }
    }

    /// The function called `name`, and its index.
    pub fn find(&self, name: &Symbol) -> Option<(usize, &Function<D>)> {
        self.functions.iter().enumerate().find(|(_, f)| f.name == *name)
    }

    /// The typing rule of calls, which all levels share: the result types of `function`, whose parameters the operands fit.
    pub fn call_types(&self, function: &Symbol, operands: &[&D::Type]) -> Result<Vec<D::Type>, String> {
        let Some((_, callee)) = self.find(function) else {
            return Err(format!("{function} is not defined before this call"));
        };
        if callee.param_types().iter().ne(operands.iter().copied()) {
            return Err(format!("the arguments do not fit the parameters of {function}"));
        }
        Ok(callee.result_types())
    }

    /// The function a program starts with.
    ///
    /// # Panics
    /// If the module has no function.
    pub fn entry(&self) -> &Function<D> {
        self.functions.last().expect("a module has an entry")
    }

    /// Checks every operation of every function against the typing rule, single assignment and definition before
    /// use; the error names function and operation.
    pub fn verify(&self) -> Result<(), String> {
        for (i, function) in self.functions.iter().enumerate() {
            if self.functions[..i].iter().any(|f| f.name == function.name) {
                return Err(format!("two functions are called {}", function.name));
            }
            let at = |message: String| format!("in {}: {message}", function.name);
            let mut defined = function.params;
            for node in &function.nodes {
                let operands = node.op.operands();
                if let Some(value) = operands.iter().find(|v| v.0 >= defined) {
                    return Err(at(format!("{} uses {value} before it is defined", node.op.mnemonic())));
                }
                let types: Vec<&D::Type> = operands.iter().map(|&v| function.type_of(v)).collect();
                let inferred = D::infer(self, &node.op, &types).map_err(at)?;
                if node.results.start != defined || node.results.len() != inferred.len() {
                    return Err(at(format!("{} does not define the next values", node.op.mnemonic())));
                }
                defined = node.results.end;
                let carried = &function.types[node.results.start as usize..node.results.end as usize];
                if carried != inferred.as_slice() {
                    return Err(at(format!("{} carries another type than it infers", node.op.mnemonic())));
                }
                if node.stage.0 as usize >= self.stages.len().max(1) {
                    return Err(at(format!(
                        "{} belongs to a stage that is not declared",
                        node.op.mnemonic()
                    )));
                }
            }
            if function.results.iter().any(|v| v.0 >= defined) || function.types.len() != defined as usize {
                return Err(at("the results are not all defined".into()));
            }
        }
        Ok(())
    }
}

/// Adds operations to a function under construction; every one is typed when it is added.
#[derive(Debug)]
pub struct Builder<D: Dialect> {
    function: Function<D>,
    /// Stage of the operations that are added next.
    pub stage: StageId,
}

impl<D: Dialect> Builder<D> {
    /// A function with parameters of these types and nothing in it.
    pub fn new(name: Symbol, params: Vec<D::Type>) -> Self {
        let count = params.len() as u32;
        let function =
            Function { name, params: count, nodes: Vec::new(), results: Vec::new(), types: params };
        Builder { function, stage: StageId(0) }
    }

    /// Adds `op`; its results, or why it does not fit.
    pub fn try_push(&mut self, module: &Module<D>, op: D::Op) -> Result<Range<u32>, String> {
        let defined = self.function.types.len();
        let operands = op.operands();
        if let Some(value) = operands.iter().find(|v| v.index() >= defined) {
            return Err(format!("{} uses {value} before it is defined", op.mnemonic()));
        }
        let types: Vec<&D::Type> = operands.iter().map(|&v| self.function.type_of(v)).collect();
        let results = D::infer(module, &op, &types)?;
        self.function.types.extend(results);
        let results = defined as u32..self.function.types.len() as u32;
        self.function.nodes.push(Node { op, results: results.clone(), stage: self.stage });
        Ok(results)
    }

    /// Adds an operation with one result.
    ///
    /// # Panics
    /// If it does not fit its operands: passes only make well-formed operations.
    pub fn push(&mut self, module: &Module<D>, op: D::Op) -> ValueId {
        match self.try_push(module, op) {
            Ok(results) => ValueId(results.start),
            Err(message) => panic!("{} of {}: {message}", D::NAME, self.function.name),
        }
    }

    /// Type of a value defined so far.
    pub fn type_of(&self, value: ValueId) -> &D::Type {
        self.function.type_of(value)
    }

    /// The nodes so far.
    pub fn nodes(&self) -> &[Node<D::Op>] {
        &self.function.nodes
    }

    /// Ends the function.
    pub fn finish(mut self, results: Vec<ValueId>) -> Function<D> {
        self.function.results = results;
        self.function
    }
}
