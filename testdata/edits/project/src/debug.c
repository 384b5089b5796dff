int debug() { return 3; }
