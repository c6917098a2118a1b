//! Create, publish, sign, collect, on a directory: a library for the desk and for the server; all signing code.
