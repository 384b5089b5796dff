pub enum Pushed {}
