//! Start, fault and stop a whole system: for the demo, the load test and the tests.
