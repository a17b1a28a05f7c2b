//! Operator interface: health, metrics, the public log, enrolment.
