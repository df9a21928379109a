"""Words and topics of the generated question answering dataset (`data_tools.synthetic_squad`); only data files."""
