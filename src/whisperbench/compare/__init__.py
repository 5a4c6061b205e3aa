"""Many runs become boards, paired tests, a gate, differences and reports: pure functions over records."""
