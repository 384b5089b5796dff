int socket() { return two(); }
