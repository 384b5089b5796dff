// A program.
int main() { return one(); }
