"""Files of pictures: decoding what people and data sets hold."""
