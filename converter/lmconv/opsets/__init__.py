"""Opsets and operators of ONNX files: conversion of any file to the standard operators of the hub."""
