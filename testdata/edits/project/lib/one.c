// A library.
int one() { return 1; }
